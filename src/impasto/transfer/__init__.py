"""A classifier of one's own on a pretrained backbone: class folders, frozen features, fine-tuning, LoRA, the report."""
