"""One call, from the request to the receipt. `generate.py` tells the story; `streaming.py` tells it for streams."""
