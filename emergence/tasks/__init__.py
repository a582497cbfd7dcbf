"""What is asked: items with checked answers, their classes, and the tokens that stand for them."""
