"""From a conversation to tokens with a loss mask: chat templates and tokenizers."""
