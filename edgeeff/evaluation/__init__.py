"""A quantized classifier judged against its float baseline on the same images."""
