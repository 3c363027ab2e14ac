"""NATS JetStream: the one owner of streams and buckets, and the stores kept in them."""
