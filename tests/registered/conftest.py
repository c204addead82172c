from registered_distribution import zoo

__all__ = ["zoo"]
