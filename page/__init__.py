"""What the page asks the server: answers for the scripts in `web/`, computed by the same functions that the nodes run."""
