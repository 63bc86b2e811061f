"""Networks that look at pictures: layers, backbones, classifiers."""
