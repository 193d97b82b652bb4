"""Graph to graph: each pass keeps what a graph saves and says where its nodes came from."""
