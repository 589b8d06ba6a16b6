"""Whether a folder of images is fit to calibrate with."""
