//! `quorate man`: a man page for each command, for packages.
//!
//! The rule: they are made of the command line itself, so they name what there is.

use std::{fs, path::PathBuf};

use clap::CommandFactory;

use crate::{
    Cli,
    failure::{Failure, failed},
};

/// Write the man pages of all commands
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to; it is made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let shown = args.directory.display();
    let written =
        fs::create_dir_all(&args.directory).and_then(|()| clap_mangen::generate_to(Cli::command(), &args.directory));
    written.map_err(|error| failed(format!("cannot write man pages to {shown}: {error}")))
}
