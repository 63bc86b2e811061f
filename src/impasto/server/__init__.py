"""The HTTP interface and the page: requests become jobs, one worker per device paints them, within limits."""
