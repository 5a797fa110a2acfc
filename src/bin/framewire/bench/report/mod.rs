use super::error::BenchError;
use super::results::Results;
pub(crate) fn render(_: &Results) -> Result<String, BenchError> {
    Ok(String::new())
}
