"""edgeeff puts EfficientNets on Raspberry Pi and Coral: convert, verify, profile, evaluate, pick."""

__version__ = "0.1.0"
