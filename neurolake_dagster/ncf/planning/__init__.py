"""Choosing encodings by trying them on a sample, after BtrBlocks. Decides size, never correctness.

Every plan holds for one chunk; the encoder verifies it on each page and falls back alone.
"""
