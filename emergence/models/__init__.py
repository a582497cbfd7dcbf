"""A name to a model that is proven to be the one named, and adapters that are proven to be applied."""
