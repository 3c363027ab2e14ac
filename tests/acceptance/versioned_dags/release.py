"""What a task says of the code it runs from: changed with each push of the test."""

RELEASE = "first"
