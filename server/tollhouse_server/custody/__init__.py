"""Upstream keys through their lives: issued, probed, promoted, drained, retired; quarantined when refused."""
