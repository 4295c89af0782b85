"""What survived: clean accuracy, attacks on raw text and the doubts about the evaluation itself."""
