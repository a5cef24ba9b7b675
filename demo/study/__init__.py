"""The paper's study (arXiv 2302.05543, 4.2 and 4.3) at the scale of the demo world."""
