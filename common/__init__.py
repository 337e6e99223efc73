"""What the server, the client and the commands share: the mathematics, the rules, the file formats."""
