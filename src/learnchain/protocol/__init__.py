"""What is said: messages, tasks, models, events, actions and the state that consensus keeps."""
