"""The OpenVINO target: a stateful model that OpenVINO GenAI loads, built from its own operators. Knows no other."""
