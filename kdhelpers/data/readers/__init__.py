"""Files of images in any layout -> uint8 arrays and labels."""
