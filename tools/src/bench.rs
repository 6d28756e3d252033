//! `quorate bench`: hands over to the load generator.

use quorate_bench::{Args, Error};

use crate::{
    failure::{Failure, failed},
    signals::{self, SIGHUP, SIGINT, SIGTERM},
};

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = signals::stop_flag(&[SIGINT, SIGTERM, SIGHUP])?;
    let outcome = quorate_bench::run(args, &stop).map_err(|error| match error {
        Error::Usage(text) => Failure::Usage(text),
        error => failed(error.to_string()),
    })?;
    println!("{outcome}");
    if outcome.passed() {
        Ok(())
    } else {
        Err(failed("no operation succeeded, or what was to be verified does not hold; see above"))
    }
}
