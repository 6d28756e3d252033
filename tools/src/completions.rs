//! `quorate completions`: what a shell has to know to complete the command line.
//!
//! The rule: it is made of the command line itself, so it names what there is.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{
    Cli,
    failure::{Failure, failed},
};

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Example: quorate completions bash > ~/.local/share/bash-completion/completions/quorate")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quorate", &mut text);
    io::stdout().write_all(&text).map_err(|error| failed(format!("cannot print: {error}")))
}
