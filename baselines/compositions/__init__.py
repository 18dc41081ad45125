"""What Compositional Explanations searches with; imported when it is needed."""
