"""What the Edge TPU compiler makes: calling it, reading what it says, and reading its files."""
