"""The M-step: the base model, fine-tuned on what the E-step chose."""
