//! Values of the user's that panic where nobody calls them: when they are dropped or cloned.

mod of_servers;
mod of_sessions;
