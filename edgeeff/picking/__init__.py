"""The largest network under a budget: what the candidates are, which to measure, what is known of them already.

Nothing in here imports TensorFlow; what has to be converted is left to `converters`, when it has to be.
"""
