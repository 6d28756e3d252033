//! `quorate man`: a man page for each command, for packages.
//!
//! The rule: they are made of the command line itself, so they name what there is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Command;
use clap_mangen::Man;

use crate::{
    command_line::command_line,
    failure::{Failure, failed},
};

/// Write the man pages of all commands
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate man /tmp/man                                  # then: man /tmp/man/quorate-cluster-join.1
  quorate man ~/.local/share/man/man1                   # where `man` looks, if ~/.local/bin is in PATH")]
pub(crate) struct Args {
    /// Where to; it is made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let shown = args.directory.display();
    let mut command = command_line();
    // So that each command knows those above it.
    command.build();
    let written = fs::create_dir_all(&args.directory).and_then(|()| write(&command, &args.directory));
    written.map_err(|error| failed(format!("cannot write man pages to {shown}: {error}; name another directory")))
}

fn write(command: &Command, directory: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write(command, directory)?;
    }
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page)?;
    // As people look for them, and line by line.
    let page = String::from_utf8_lossy(&page).replace("\n.SH EXTRA\n", "\n.SH EXAMPLES\n.nf\n");
    fs::write(directory.join(man.get_filename()), page)
}
