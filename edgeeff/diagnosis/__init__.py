"""Why a quantized file is not what its float model is."""
