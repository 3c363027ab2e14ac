"""What the tests of the charts share: rendering with Helm, and views of what was rendered."""
