"""What varies from row to row in each paper's tables; `python -m fgjax.study` trains them."""
