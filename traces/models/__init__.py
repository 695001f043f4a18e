"""Models: loading them, and the sites where their activations can be zero."""
