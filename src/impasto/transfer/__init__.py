"""Your own classifier on a pretrained backbone: class folders, frozen features, fine-tuning, LoRA, the report."""
