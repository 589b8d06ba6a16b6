"""From a Keras EfficientNet to a verified, quantized .tflite file."""
