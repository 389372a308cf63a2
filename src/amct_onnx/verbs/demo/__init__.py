"""The verb demo: a small QAT model with its test images, written where the user wants to try the other verbs."""
