"""The source model with the biases that its int8 form will have."""
