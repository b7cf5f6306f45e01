"""The gRPC face: the door, thin servicers, and protobuf ⇄ domain."""
