"""Quality benchmarks of face detection, face removal and background trim."""
