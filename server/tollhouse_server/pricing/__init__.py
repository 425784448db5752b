"""Pricing: the price book, usage into priced lines, and the worst case of a call before it is sent."""
