"""Calibration images and the activation ranges that they give."""
