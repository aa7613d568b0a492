"""Drawing of small pedestrians with Pillow: canvas, wardrobe, figure and scenery."""
