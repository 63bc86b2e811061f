"""Common parts of the methods: the Stylizer interface, styles, kinds of stylizers."""
