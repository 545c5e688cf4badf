//! The embedded Kubernetes API and the controllers that an embedded cluster needs
