use crate::{layer::ProxyHeader, session::Session};

impl Session<'_> {
    /// Returns what the proxy in front of the server has said about this connection, or `None` if there is none, or it
    /// is not [asked](crate::Server::proxy_protocol).
    ///
    /// ```
    /// use framewire::{Handled, Session};
    ///
    /// fn host<'a>(session: &'a Session<'_>) -> Option<&'a str> {
    ///     session.proxied()?.authority() // the host name that the client asked the proxy for
    /// }
    /// # let _ = host;
    /// ```
    #[must_use]
    pub fn proxied(&self) -> Option<&ProxyHeader> {
        self.connection.proxied()
    }
}
