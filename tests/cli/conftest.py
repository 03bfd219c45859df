from tiny_checkpoint import tiny_adapter, tiny_checkpoint

__all__ = ["tiny_adapter", "tiny_checkpoint"]
