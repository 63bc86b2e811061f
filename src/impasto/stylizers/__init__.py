"""What methods share: the Stylizer interface, styles, kinds of stylizers."""
