"""The HTTP interface and the page: requests become jobs, one worker a device paints them, limits hold by default."""
