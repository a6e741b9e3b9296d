"""What only nano's own curriculum needs: an untrained nano, auxiliary losses, a new colour."""
