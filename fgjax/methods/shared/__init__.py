"""What several papers share: classifier, objects and parts, embeddings, prediction."""
